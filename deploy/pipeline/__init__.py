"""The stages of the loop, in the order of the story: networks, tables, judge, ship."""

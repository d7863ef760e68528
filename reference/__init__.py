"""Reference pages of the documentation's site, generated from what the program itself reads: parsers and records."""

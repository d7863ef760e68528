"""The stages of the loop, a module each; loop.py names them in their order."""

"""An experiment's settings, section by section."""

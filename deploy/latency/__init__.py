"""How long blocks and whole models take on one device: tables, their agreement with the board, and corrections."""

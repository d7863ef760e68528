"""How long blocks and full networks take on one device: tables, their agreement with the board, and corrections."""

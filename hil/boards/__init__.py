"""Kinds of board, one file each, all behind the protocol `hil.boards.board.Board`."""

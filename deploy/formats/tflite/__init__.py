"""TFLite files: written from integer graphs (writer, operators), and read back (read)."""

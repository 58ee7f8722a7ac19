"""Tables as other programs write them, read with the types that a contract declares."""

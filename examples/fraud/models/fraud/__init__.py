"""Card payments, and whether they are fraud: one in a hundred is."""

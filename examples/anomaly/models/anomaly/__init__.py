"""Which readings of a compressor are strange: nobody says so when the model learns."""

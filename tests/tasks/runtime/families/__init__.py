"""What is known of each library, held against the library."""

"""The units that a shop sells of a product on a day."""

"""What a release takes along, and all that it takes along of this project."""

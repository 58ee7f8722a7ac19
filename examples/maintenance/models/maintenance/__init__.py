"""What will stop a machine: nothing, heat, overstrain or wear."""

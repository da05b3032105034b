"""What does this filter mean? Knows no storage."""

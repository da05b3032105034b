"""Here are the numbers; which way is cheapest? Pure functions of numbers."""

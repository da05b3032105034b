"""What is durable? Knows no index and no filter."""

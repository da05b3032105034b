"""Here are bytes; are they on disk? The only room that touches the operating system."""

"""Did it obey? A judge of the real data, and what it says of generated pictures."""

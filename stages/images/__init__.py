"""A picture becomes numbers."""

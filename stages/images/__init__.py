"""A picture becomes numbers: features made of integers."""

"""What a client or an address may cost: rates, counts and places, and the names of the limits. Time is an argument."""

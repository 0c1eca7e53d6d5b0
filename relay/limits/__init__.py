"""What a client or an address may use: rates, counts and seats."""

"""Who may listen, broadcast and operate: tokens, keys, and the rules that use them."""

"""Access control for listening, broadcasting and operating: tokens, keys, and the rules that use them."""

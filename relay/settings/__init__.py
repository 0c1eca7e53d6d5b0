"""Every setting, with its default and its reason, and where its value comes from."""

"""Floor 5: composition: settings become objects, objects become tasks, commands run them."""

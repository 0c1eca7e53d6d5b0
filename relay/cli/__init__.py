"""Floor 4: composition: settings become objects, objects become tasks, commands run them."""

"""From a raw click log to ids: reading, splitting, counting, encoding, and the folder that keeps the result."""

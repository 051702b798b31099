//! What was said, and what it resolves to. Pure: reads no file and no environment.

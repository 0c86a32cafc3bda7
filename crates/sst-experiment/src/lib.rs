//! Plans, run folders, resume, aggregated results and their tables.

//! A worker's life: build the site, say ready, serve, drain.

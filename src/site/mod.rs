//! What answers a request.

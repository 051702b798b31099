//! Listening sockets: addresses, bind, what clients will meet.

"""Everything that talks to the API server: one client, one transport, Events and the Lease."""

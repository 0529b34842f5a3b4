"""From a watch event to a look at one object: inbox, queue, resync, and the watchdog over them."""

"""The Start tab: a finished example to look at, and the two ways on."""

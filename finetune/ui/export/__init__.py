"""The Export tab: what a run is taken away as."""

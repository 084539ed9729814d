"""The Data tab: bring examples, see every problem, mend what can be mended."""

"""The validate step: what a run would need and do, told before an accelerator is asked for."""

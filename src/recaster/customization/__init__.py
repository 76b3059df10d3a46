"""Methods of making an open model one's own, one module each; `METHOD` of the module is the instance."""

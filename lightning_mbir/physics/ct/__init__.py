"""CT: geometries and beams."""

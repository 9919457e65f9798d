"""What the Segment tab shows beside the canvas: it emits what was asked, and changes nothing."""

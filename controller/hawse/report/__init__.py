"""What a run did and how the fleet is: the data (`model`), its history (`history`), its looks (`console`)."""

"""DICOM for several rooms: associations, storage commitment, headers, planes, UIDs."""

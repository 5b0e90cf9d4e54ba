"""What several rooms need of DICOM: associations, storage commitment, headers, planes, UIDs."""

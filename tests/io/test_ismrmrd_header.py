"""The XML header of ISMRMRD and fastMRI's files."""

from dataclasses import replace

import pytest

from mrisps.io.ismrmrd_header import IsmrmrdHeader


def test_header_round_trip() -> None:
    header = IsmrmrdHeader(
        (640, 372, 1), (320, 320, 1), (280.5, 162.0, 4.5), (140.0, 140.0, 4.5), (0, 329, 165), "cartesian", 15, 2.8936
    )
    assert IsmrmrdHeader.from_xml(header.to_xml()) == header
    unknown = IsmrmrdHeader.for_shape((24, 15), (12, 12))
    assert IsmrmrdHeader.from_xml(unknown.to_xml()) == unknown
    assert unknown.recon_fov_mm is None


@pytest.mark.parametrize("header", [IsmrmrdHeader.for_shape((24, 15)), IsmrmrdHeader((2, 3, 1), (2, 3, 1), n_coils=4)])
def test_header_is_valid_ismrmrd(header: IsmrmrdHeader) -> None:
    from ismrmrd import xsd

    read = xsd.CreateFromDocument(header.to_xml())
    assert read.encoding[0].encodedSpace.matrixSize.x == header.encoded_matrix[0]
    assert read.encoding[0].trajectory.value == "cartesian"


def test_header_of_ismrmrd_is_read() -> None:
    text = b"""<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD" xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <acquisitionSystemInformation><systemFieldStrength_T>1.494</systemFieldStrength_T></acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>63642459</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace><matrixSize><x>640</x><y>368</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>280</x><y>161</y><z>4.5</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>320</x><y>320</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>140</x><y>140</y><z>4.5</z></fieldOfView_mm></reconSpace>
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>321</maximum><center>160</center>
      </kspace_encoding_step_1></encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>"""
    expected = IsmrmrdHeader(
        (640, 368, 1), (320, 320, 1), (280, 161, 4.5), (140, 140, 4.5), (0, 321, 160), "cartesian", None, 1.494
    )
    assert IsmrmrdHeader.from_xml(text) == replace(expected, resonance_frequency_hz=63642459)


LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
FILE = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'


@pytest.mark.parametrize("text", [LAUGHS, FILE, LAUGHS.decode().encode("utf-16")])
def test_header_with_entities(text: bytes) -> None:
    with pytest.raises(ValueError, match="a document type declaration is not allowed"):
        IsmrmrdHeader.from_xml(text)


def test_hostile_headers() -> None:
    valid = IsmrmrdHeader.for_shape((24, 15)).to_xml()
    with pytest.raises(ValueError, match="expected at most 1048576 bytes"):
        IsmrmrdHeader.from_xml(valid + b" " * (1 << 20))
    with pytest.raises(ValueError, match="is no valid XML"):
        IsmrmrdHeader.from_xml(valid[:-10])
    with pytest.raises(ValueError, match="is no valid XML: unknown encoding"):
        IsmrmrdHeader.from_xml(b'<?xml version="1.0" encoding="ascyi"?><a/>')
    with pytest.raises(ValueError, match=r"encoding.encodedSpace.matrixSize: expected three numbers"):
        IsmrmrdHeader.from_xml(valid.replace(b"<x>24</x>", b""))
    for bad in (b"-3", b"99999999999", b"1e6"):
        with pytest.raises(ValueError, match="from 1 to 65536"):
            IsmrmrdHeader.from_xml(valid.replace(b"<x>24</x>", b"<x>" + bad + b"</x>"))
    for bad in (b"nan", b"inf", b"many"):
        with pytest.raises(ValueError, match=r"matrixSize\.x: expected a number"):
            IsmrmrdHeader.from_xml(valid.replace(b"<x>24</x>", b"<x>" + bad + b"</x>"))
    with pytest.raises(ValueError, match=r"matrixSize"):
        IsmrmrdHeader.from_xml(b"<a>" * 100_000 + b"</a>" * 100_000)


IDENTITY = b"""<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <subjectInformation><patientName>Doe^Jane</patientName><patientID>p7</patientID></subjectInformation>
  <studyInformation><studyDate>2024-02-29</studyDate><studyInstanceUID>1.2.3</studyInstanceUID></studyInformation>
  <measurementInformation><measurementID>m</measurementID><patientPosition>FFS</patientPosition>
    <protocolName>gre</protocolName><frameOfReferenceUID>1.2.4</frameOfReferenceUID></measurementInformation>
  <acquisitionSystemInformation><systemVendor>maker</systemVendor><systemFieldStrength_T>3.0</systemFieldStrength_T>
    <receiverChannels>4</receiverChannels><institutionName>clinic</institutionName></acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>1</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding><encodedSpace><matrixSize><x>8</x><y>6</y><z>1</z></matrixSize></encodedSpace>
    <reconSpace><matrixSize><x>8</x><y>6</y><z>1</z></matrixSize></reconSpace>
    <trajectory>cartesian</trajectory></encoding>
  <sequenceParameters><TR>10</TR><TE>3</TE><TE>6</TE></sequenceParameters>
</ismrmrdHeader>"""


def test_who_when_and_how_survive() -> None:
    """In an order that the schema allows."""
    from ismrmrd import xsd

    header = IsmrmrdHeader.from_xml(IDENTITY)
    assert header.texts["subjectInformation/patientName"] == "Doe^Jane"
    assert header.texts["sequenceParameters/TE"] == "3"
    assert "measurementInformation/protocolName" not in header.texts
    assert IsmrmrdHeader.from_xml(header.to_xml()) == header
    read = xsd.CreateFromDocument(header.to_xml())
    assert read.studyInformation.studyInstanceUID == "1.2.3"
    assert read.measurementInformation.frameOfReferenceUID == "1.2.4"
    assert read.acquisitionSystemInformation.institutionName == "clinic"


def test_no_patient_position_is_invented() -> None:
    text = IDENTITY.replace(b"<patientPosition>FFS</patientPosition>", b"")
    written = IsmrmrdHeader.from_xml(IsmrmrdHeader.from_xml(text).to_xml())
    assert written.patient_position is None
    assert written.texts["subjectInformation/patientName"] == "Doe^Jane"

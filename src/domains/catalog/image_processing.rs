//! Image processing: turns an uploaded image into the sizes the shop serves, upright and without metadata.
//!
//! Pure functions that take long (tens of milliseconds per megapixel), so they run off the actor's thread. Invariant: every
//! image is decoded and encoded anew, so that no metadata gets through (phones record the location), and no file that
//! browsers would take for something else than an image. Small originals are not kept as they are, for the same reason. The
//! colour profile is dropped: colours outside sRGB come out a little duller.

use std::io::Cursor;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8x3, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::error::ImageError;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, RgbaImage};
use jpeg_encoder::{ColorType, Encoder as JpegEncoder};

/// Long side of the smaller sizes in pixels: for cart lines, list tiles and product pages.
const SIZES: [u32; 3] = [160, 480, 960];
/// Long side of the largest size in pixels.
const LARGEST: u32 = 1_600;
/// JPEG quality at which losses hardly show on edges and files are still small.
const JPEG_QUALITY: u8 = 82;
/// Bytes that a decoder may use besides the pixels, such as for a colour profile: a compressed one of some kilobytes can
/// expand to hundreds of megabytes.
const METADATA_BYTES_MAX: u64 = 4 << 20;
/// Maximum size of the decoded pixels in bytes. An image of 16 bits per channel reaches it with half the pixels.
const DECODED_BYTES_MAX: u64 = 192 << 20;

/// An image in one size, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// Width in pixels, unique among the renditions of an image.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `image/jpeg`, or `image/png` for an image with transparency.
    pub content_type: &'static str,
    /// Content of the file.
    pub data: Vec<u8>,
}

/// The file cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageFileError {
    /// Not a JPEG, PNG or WebP image, or a damaged one; the text is for people.
    #[error("{0}")]
    Unreadable(String),
    /// The file has more bytes, or the image more pixels, than allowed.
    #[error("the image is too large")]
    TooLarge,
}

/// Renders an image in its sizes, the smallest first. The last one has at most 1,600 pixels on its long side, and never
/// more than the original.
///
/// # Errors
/// A file of more than `bytes_max` bytes or `pixels_max` pixels is rejected before it is decoded.
pub fn render(data: &[u8], bytes_max: usize, pixels_max: u64) -> Result<Vec<Rendition>, ImageFileError> {
    if data.len() > bytes_max {
        return Err(ImageFileError::TooLarge);
    }
    let mut image = decode(data, pixels_max)?;
    let (width, height) = (image.width(), image.height());
    let largest = width.max(height).min(LARGEST);
    // A size within a fifth of the largest would only take space.
    let smaller = SIZES.into_iter().filter(|size| size * 5 / 4 <= largest).rev();
    let mut renditions: Vec<Rendition> = Vec::with_capacity(SIZES.len() + 1);
    // Each size is made from the next larger one: a quarter of the work of making each from the original.
    for side in std::iter::once(largest).chain(smaller) {
        let (w, h) = fit_within(width, height, side);
        if renditions.iter().any(|r| r.width == w) {
            continue;
        }
        if (w, h) != (image.width(), image.height()) {
            image = downscale(&image, w, h).ok_or_else(invalid_image)?;
        }
        let (content_type, data) = encode(&image).ok_or_else(invalid_image)?;
        renditions.push(Rendition { width: w, height: h, content_type, data });
    }
    renditions.reverse();
    Ok(renditions)
}

/// The error for what no image within the limits leads to.
fn invalid_image() -> ImageFileError {
    ImageFileError::Unreadable("it cannot be stored".to_owned())
}

/// Decodes an image upright, with three channels, or four if it has transparency. The format is detected from the content,
/// not from a name or a content type.
fn decode(data: &[u8], pixels_max: u64) -> Result<DynamicImage, ImageFileError> {
    let format = image::guess_format(data)
        .ok()
        .filter(|format| matches!(format, ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP))
        .ok_or_else(|| ImageFileError::Unreadable("its content is of another kind".to_owned()))?;
    if format == ImageFormat::Jpeg && !has_jpeg_end(data) {
        return Err(ImageFileError::Unreadable("it is cut short".to_owned()));
    }
    let decoded_bytes = decoded_bytes(data, format, pixels_max)?;
    let mut decoder = decoder(data, format, decoded_bytes.saturating_mul(2))?;
    // An unreadable orientation is ignored, as browsers do.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(decode_error)?;
    image.apply_orientation(orientation);
    if !image.color().has_alpha() {
        return Ok(image.into_rgb8().into());
    }
    let image = image.into_rgba8();
    if image.pixels().all(|pixel| pixel.0[3] == u8::MAX) {
        return Ok(DynamicImage::from(image).into_rgb8().into());
    }
    Ok(image.into())
}

/// Opens an image, which reads its header. `pixel_bytes` is the memory that its pixels may take.
fn decoder(data: &[u8], format: ImageFormat, pixel_bytes: u64) -> Result<impl ImageDecoder, ImageFileError> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(pixel_bytes.saturating_add(METADATA_BYTES_MAX));
    let mut reader = ImageReader::with_format(Cursor::new(data), format);
    reader.limits(limits);
    reader.into_decoder().map_err(decode_error)
}

/// Reads the size of the decoded pixels from the header, so that a decompression bomb is rejected before a pixel is decoded.
fn decoded_bytes(data: &[u8], format: ImageFormat, pixels_max: u64) -> Result<u64, ImageFileError> {
    let header = decoder(data, format, 0)?;
    let (width, height) = header.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > pixels_max || header.total_bytes() > DECODED_BYTES_MAX {
        return Err(ImageFileError::TooLarge);
    }
    if pixels == 0 {
        return Err(ImageFileError::Unreadable("it has no pixels".to_owned()));
    }
    Ok(header.total_bytes())
}

/// Returns the memory in MiB that [`render`] takes at most for an image: its pixels as decoded, turned upright and in eight
/// bits per channel. Nothing for what it will reject.
#[must_use]
pub fn memory_mib(data: &[u8], pixels_max: u64) -> u32 {
    let format = image::guess_format(data).ok();
    let bytes = format.and_then(|format| decoded_bytes(data, format, pixels_max).ok()).unwrap_or_default();
    u32::try_from(bytes.saturating_mul(3) >> 20).unwrap_or(u32::MAX)
}

/// Returns `true` if a JPEG has its end marker. The decoder would fill the missing part with grey.
fn has_jpeg_end(jpeg: &[u8]) -> bool {
    let mut at = 2;
    // Skip the segments: a thumbnail inside one has an end marker of its own.
    while let Some([0xFF, marker, high, low]) = jpeg.get(at..at + 4) {
        if *marker == 0xFF {
            at += 1; // Padding before a marker.
            continue;
        }
        at += 2 + usize::from(u16::from_be_bytes([*high, *low]));
        if *marker == 0xDA {
            // Entropy-coded data never contains these two bytes in sequence.
            return jpeg.get(at..).is_some_and(|rest| rest.windows(2).any(|pair| pair == [0xFF, 0xD9]));
        }
    }
    false
}

fn decode_error(error: ImageError) -> ImageFileError {
    match error {
        ImageError::Limits(_) => ImageFileError::TooLarge,
        ImageError::Unsupported(_) => {
            ImageFileError::Unreadable("it uses an unsupported variant of its format".to_owned())
        }
        _ => ImageFileError::Unreadable("it is damaged or cut short".to_owned()),
    }
}

/// Scales a size so that its long side is `side` pixels and its short side at least one.
fn fit_within(width: u32, height: u32, side: u32) -> (u32, u32) {
    let long = u64::from(width.max(height));
    let scaled = |length: u32| {
        let exact = (u64::from(length) * u64::from(side) + long / 2) / long;
        u32::try_from(exact.max(1)).unwrap_or(side)
    };
    (scaled(width), scaled(height))
}

/// Downscales with Catmull-Rom, which keeps edges without Lanczos' halos; with a bilinear filter if there is transparency,
/// because overshoot would make a colour exceed its own alpha. (The resizer premultiplies alpha, so that colours of
/// invisible pixels do not bleed into edges.)
fn downscale(image: &DynamicImage, width: u32, height: u32) -> Option<DynamicImage> {
    // By the two types that occur: resizing any type would link the resizer's code for all of them.
    match image {
        DynamicImage::ImageRgb8(from) => {
            let mut to = RgbImage::new(width, height);
            resize::<U8x3>(from, from.dimensions(), &mut to, (width, height), FilterType::CatmullRom)?;
            Some(to.into())
        }
        DynamicImage::ImageRgba8(from) => {
            let mut to = RgbaImage::new(width, height);
            resize::<U8x4>(from, from.dimensions(), &mut to, (width, height), FilterType::Bilinear)?;
            Some(to.into())
        }
        _ => None,
    }
}

fn resize<P: PixelTrait>(
    from: &[u8],
    (width, height): (u32, u32),
    to: &mut [u8],
    (new_width, new_height): (u32, u32),
    filter: FilterType,
) -> Option<()> {
    let from = TypedImageRef::<P>::from_buffer(width, height, from).ok()?;
    let mut to = TypedImage::<P>::from_buffer(new_width, new_height, to).ok()?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize_typed(&from, &mut to, &options).ok()
}

/// Encodes an image as JPEG, or as PNG if it has transparency.
fn encode(image: &DynamicImage) -> Option<(&'static str, Vec<u8>)> {
    let mut data = Vec::new();
    if image.color().has_alpha() {
        let encoder = PngEncoder::new_with_quality(&mut data, CompressionType::Default, PngFilter::Adaptive);
        image.write_with_encoder(encoder).ok()?;
        return Some(("image/png", data));
    }
    let (width, height) = (u16::try_from(image.width()).ok()?, u16::try_from(image.height()).ok()?);
    JpegEncoder::new(&mut data, JPEG_QUALITY).encode(image.as_bytes(), width, height, ColorType::Rgb).ok()?;
    Some(("image/jpeg", data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage, RgbaImage};

    const BYTES: usize = 10 << 20;
    const PIXELS: u64 = 40_000_000;

    /// Left half red, right half blue, so that a turn can be seen.
    fn two_halves(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([220, 20, 20]) } else { Rgb([20, 20, 220]) })
    }

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut data = Cursor::new(Vec::new());
        image.write_to(&mut data, format).unwrap();
        data.into_inner()
    }

    fn widths(renditions: &[Rendition]) -> Vec<(u32, u32)> {
        renditions.iter().map(|r| (r.width, r.height)).collect()
    }

    #[test]
    fn render_makes_sizes_and_never_enlarges() {
        type Size = (u32, u32);
        let cases: [(Size, &[Size]); 7] = [
            ((2_000, 1_000), &[(160, 80), (480, 240), (960, 480), (1_600, 800)]),
            ((1_000, 2_000), &[(80, 160), (240, 480), (480, 960), (800, 1_600)]),
            ((960, 960), &[(160, 160), (480, 480), (960, 960)]),
            ((1_000, 1_000), &[(160, 160), (480, 480), (1_000, 1_000)]),
            ((220, 110), &[(160, 80), (220, 110)]),
            ((100, 60), &[(100, 60)]),
            ((3, 2_000), &[(1, 480), (2, 1_600)]),
        ];
        for (size, expected) in cases {
            let image = DynamicImage::ImageRgb8(two_halves(size.0, size.1));
            // One format is enough for the large ones: what is tested there are the sizes, and debug builds are slow.
            let small = size.0 * size.1 < 100_000;
            let formats = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP];
            for format in formats.into_iter().take(if small { 3 } else { 1 }) {
                let renditions = render(&encoded(&image, format), BYTES, PIXELS).unwrap();
                if size.0 == 3 {
                    // Renditions are requested by width, so widths must differ.
                    let widths: Vec<u32> = renditions.iter().map(|r| r.width).collect();
                    assert!(widths.windows(2).all(|w| w[0] < w[1]), "{widths:?}");
                    continue;
                }
                assert_eq!(widths(&renditions), expected, "{format:?}");
                for rendition in renditions {
                    assert_eq!(rendition.content_type, "image/jpeg");
                    let again = image::load_from_memory(&rendition.data).unwrap();
                    assert_eq!((again.width(), again.height()), (rendition.width, rendition.height));
                }
            }
        }
    }

    #[test]
    fn transparency_is_kept_without_colour_bleeding() {
        // Opaque green beside pixels that are invisible and red: no red may bleed in.
        let image = RgbaImage::from_fn(400, 400, |x, _| {
            if x % 2 == 0 { image::Rgba([0, 200, 0, 255]) } else { image::Rgba([255, 0, 0, 0]) }
        });
        let renditions = render(&encoded(&image.into(), ImageFormat::Png), BYTES, PIXELS).unwrap();
        let small = renditions.first().unwrap();
        assert_eq!((small.width, small.content_type), (160, "image/png"));
        let again = image::load_from_memory(&small.data).unwrap().into_rgba8();
        let [red, green, _, alpha] = again.get_pixel(80, 80).0;
        assert!(red < 20 && green > 170 && (100..160).contains(&alpha), "{:?}", again.get_pixel(80, 80));
    }

    #[test]
    fn opaque_alpha_channel_is_dropped() {
        let image = RgbaImage::from_pixel(300, 300, image::Rgba([9, 9, 9, 255]));
        let renditions = render(&encoded(&image.into(), ImageFormat::WebP), BYTES, PIXELS).unwrap();
        assert!(renditions.iter().all(|r| r.content_type == "image/jpeg"));
    }

    #[test]
    fn grey_and_sixteen_bit_images_are_decoded() {
        for image in
            [DynamicImage::new_luma8(200, 100), DynamicImage::new_rgb16(200, 100), DynamicImage::new_luma_a16(200, 100)]
        {
            let renditions = render(&encoded(&image, ImageFormat::Png), BYTES, PIXELS).unwrap();
            assert_eq!(widths(&renditions), [(160, 80), (200, 100)]);
        }
    }

    /// A PNG of a few bytes whose header declares 50,000 by 50,000 pixels.
    fn bomb() -> Vec<u8> {
        let mut data = encoded(&DynamicImage::new_rgb8(1, 1), ImageFormat::Png);
        data[16..20].copy_from_slice(&50_000_u32.to_be_bytes());
        data[20..24].copy_from_slice(&50_000_u32.to_be_bytes());
        let crc = crc(&data[12..29]);
        data[29..33].copy_from_slice(&crc.to_be_bytes());
        data
    }

    /// CRC-32 of PNG chunks (ISO 3309).
    fn crc(data: &[u8]) -> u32 {
        !data
            .iter()
            .fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xEDB8_8320 * (c & 1))))
    }

    #[test]
    fn decompression_bomb_is_rejected_before_decoding() {
        let bomb = bomb();
        assert!(bomb.len() < 200);
        // Its pixels are missing: a decoder that had begun would say that it cannot be read.
        assert_eq!(render(&bomb, BYTES, PIXELS), Err(ImageFileError::TooLarge));
    }

    /// A PNG of one pixel with a chunk after its header.
    fn png_with_chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut data = encoded(&DynamicImage::new_rgb8(1, 1), ImageFormat::Png);
        let mut chunk = u32::try_from(content.len()).unwrap().to_be_bytes().to_vec();
        chunk.extend_from_slice(kind);
        chunk.extend_from_slice(content);
        let sum = crc(&chunk[4..]).to_be_bytes();
        chunk.extend_from_slice(&sum);
        data.splice(33..33, chunk);
        data
    }

    #[test]
    fn compressed_metadata_is_not_expanded_beyond_the_budget() {
        use std::io::Read as _;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::copy(&mut std::io::repeat(0).take(64 << 20), &mut zlib).unwrap();
        let bomb = zlib.finish().unwrap();
        assert!(bomb.len() < 100_000);
        let with = |head: &[u8]| [head, &bomb].concat();
        for (kind, content) in [(b"iCCP", with(b"profile\0\0")), (b"zTXt", with(b"note\0\0"))] {
            let data = png_with_chunk(kind, &content);
            let before = decoder(&data, ImageFormat::Png, 0).map(|mut header| header.icc_profile().ok().flatten());
            // Refused, or ignored; never expanded.
            assert!(before.is_err() || before.is_ok_and(|profile| profile.is_none_or(|bytes| bytes.len() < 5 << 20)));
        }
    }

    #[test]
    fn memory_is_known_from_the_header() {
        let image = encoded(&DynamicImage::new_rgb8(1_024, 1_024), ImageFormat::Png);
        assert_eq!(memory_mib(&image, PIXELS), 9);
        assert_eq!(memory_mib(&bomb(), PIXELS), 0);
        assert_eq!(memory_mib(b"no image", PIXELS), 0);
    }

    #[test]
    fn too_large_image_is_rejected() {
        let image = encoded(&DynamicImage::new_rgb8(200, 200), ImageFormat::Jpeg);
        assert_eq!(render(&image, image.len() - 1, PIXELS), Err(ImageFileError::TooLarge));
        assert_eq!(render(&image, BYTES, 200 * 200 - 1), Err(ImageFileError::TooLarge));
        assert!(render(&image, image.len(), 200 * 200).is_ok());
    }

    #[test]
    fn unsupported_format_is_rejected() {
        let gif =
            b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
        let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
        for data in [&gif[..], &svg[..], b"hello", b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8 "]
        {
            assert!(matches!(render(data, BYTES, PIXELS), Err(ImageFileError::Unreadable(_))), "{data:?}");
        }
    }

    #[test]
    fn truncated_file_is_rejected() {
        let image = DynamicImage::ImageRgb8(two_halves(120, 80));
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Jpeg] {
            let data = encoded(&image, format);
            for length in (0..data.len()).step_by(data.len() / 20).chain([data.len() - 1]) {
                let short = render(&data[..length], BYTES, PIXELS);
                // The last byte of a PNG or WebP is a checksum or padding that the decoder does not need.
                let whole = length == data.len() - 1 && format != ImageFormat::Jpeg;
                assert!(whole || matches!(short, Err(ImageFileError::Unreadable(_))), "{format:?} {length}");
            }
        }
    }

    /// Puts an EXIF segment after a JPEG's first marker: orientation 6 (turn right), a GPS block, a camera's name.
    fn with_exif(jpeg: &[u8]) -> Vec<u8> {
        let mut tiff = b"MM\0\x2a\0\0\0\x08".to_vec();
        let entry = |tag: u16, kind: u16, count: u32, value: [u8; 4]| {
            [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &count.to_be_bytes(), &value].concat()
        };
        tiff.extend(3_u16.to_be_bytes());
        tiff.extend(entry(0x010F, 2, 4, *b"CAM\0"));
        tiff.extend(entry(0x0112, 3, 1, [0, 6, 0, 0]));
        tiff.extend(entry(0x8825, 4, 1, 50_u32.to_be_bytes()));
        tiff.extend([0; 4]);
        tiff.extend(1_u16.to_be_bytes());
        tiff.extend(entry(0x0001, 2, 2, *b"N\0\0\0"));
        tiff.extend([0; 4]);
        let segment = [b"Exif\0\0".as_slice(), &tiff].concat();
        let length = u16::try_from(segment.len() + 2).unwrap();
        [&jpeg[..2], &[0xFF, 0xE1], &length.to_be_bytes(), &segment, &jpeg[2..]].concat()
    }

    #[test]
    fn exif_orientation_is_applied_and_metadata_dropped() {
        let data = with_exif(&encoded(&DynamicImage::ImageRgb8(two_halves(400, 200)), ImageFormat::Jpeg));
        let renditions = render(&data, BYTES, PIXELS).unwrap();
        let largest = renditions.last().unwrap();
        assert_eq!((largest.width, largest.height), (200, 400));
        let again = image::load_from_memory(&largest.data).unwrap().into_rgb8();
        let (top, bottom) = (again.get_pixel(100, 50).0, again.get_pixel(100, 350).0);
        assert!(top[0] > 150 && bottom[2] > 150, "{top:?} {bottom:?}");
        for rendition in &renditions {
            for trace in [b"Exif".as_slice(), b"CAM"] {
                assert!(!rendition.data.windows(trace.len()).any(|w| w == trace));
            }
        }
    }
}

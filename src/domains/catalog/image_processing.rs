//! Makes of an uploaded picture what the shop shows: the same picture in a few sizes, upright, and with nothing else
//! in the file. A pure function; it takes long (tens of milliseconds a megapixel), so it runs off the actor's thread.
//!
//! Every picture is decoded and encoded anew. So no metadata gets through (a phone writes where it was), and no file
//! that is a picture to us and something else to a browser. Refused: keeping small originals as they are.
//! The colour profile goes too: colours outside sRGB come out a little duller, which a shop can live with.

use std::io::Cursor;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8x3, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::error::ImageError;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, RgbaImage};
use jpeg_encoder::{ColorType, Encoder as JpegEncoder};

/// The long side of the smaller sizes, in pixels: a cart's line, a list's tile, a product's page.
const SIZES: [u32; 3] = [160, 480, 960];
/// The long side of the largest size, in pixels.
const LARGEST: u32 = 1_600;
/// Where JPEG's losses begin to show on a product's edges and where its files are still small.
const JPEG_QUALITY: u8 = 82;
/// Bytes of a pixel in the widest form we decode: four channels of 16 bits.
const PIXEL_BYTES_MAX: u64 = 8;

/// A picture in one size, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// In pixels. No two renditions of a picture have the same.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// `image/jpeg`, or `image/png` where something shines through.
    pub content_type: &'static str,
    /// The file.
    pub data: Vec<u8>,
}

/// Why a file cannot become pictures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// It is no JPEG, PNG or WebP, or a broken one. The text is for people.
    #[error("{0}")]
    Unreadable(String),
    /// The file has more bytes, or the picture more pixels, than allowed.
    #[error("the picture is too large")]
    TooLarge,
}

/// Makes the renditions of a picture, the smallest first. The last one is the largest: at most 1,600 pixels on its long
/// side, never larger than what came in. A file of more than `bytes_max` bytes or more than `pixels_max` pixels is
/// refused before it is decoded.
pub fn render(data: &[u8], bytes_max: usize, pixels_max: u64) -> Result<Vec<Rendition>, PictureError> {
    if data.len() > bytes_max {
        return Err(PictureError::TooLarge);
    }
    let mut picture = decode(data, pixels_max)?;
    let (width, height) = (picture.width(), picture.height());
    let largest = width.max(height).min(LARGEST);
    // A size within a fifth of the largest would only take state.
    let smaller = SIZES.into_iter().filter(|size| size * 5 / 4 <= largest).rev();
    let mut renditions: Vec<Rendition> = Vec::with_capacity(SIZES.len() + 1);
    // Each size is made from the next larger one: a quarter of the work of making each from the original.
    for side in std::iter::once(largest).chain(smaller) {
        let (w, h) = fit(width, height, side);
        if renditions.iter().any(|r| r.width == w) {
            continue;
        }
        if (w, h) != (picture.width(), picture.height()) {
            picture = shrink(&picture, w, h).ok_or_else(unusable)?;
        }
        let (content_type, data) = encode(&picture).ok_or_else(unusable)?;
        renditions.push(Rendition { width: w, height: h, content_type, data });
    }
    renditions.reverse();
    Ok(renditions)
}

/// For what no picture within the limits leads to.
fn unusable() -> PictureError {
    PictureError::Unreadable("it cannot be stored".to_owned())
}

/// Reads the picture, upright: three channels, or four where something shines through. Its kind is told by its content;
/// nobody's word for it counts.
fn decode(data: &[u8], pixels_max: u64) -> Result<DynamicImage, PictureError> {
    let format = image::guess_format(data)
        .ok()
        .filter(|format| matches!(format, ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP))
        .ok_or_else(|| PictureError::Unreadable("its content is of another kind".to_owned()))?;
    if format == ImageFormat::Jpeg && !ends(data) {
        return Err(PictureError::Unreadable("it is cut short".to_owned()));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(pixels_max.saturating_mul(PIXEL_BYTES_MAX).saturating_add(1 << 20));
    let mut reader = ImageReader::with_format(Cursor::new(data), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refused)?;
    // The header says how large it will be, so a bomb is known before a pixel of it is unfolded.
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > pixels_max {
        return Err(PictureError::TooLarge);
    }
    if width == 0 || height == 0 {
        return Err(PictureError::Unreadable("it has no pixels".to_owned()));
    }
    // A picture whose orientation cannot be read is shown as it lies, as browsers do.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(refused)?;
    picture.apply_orientation(orientation);
    if !picture.color().has_alpha() {
        return Ok(picture.into_rgb8().into());
    }
    let picture = picture.into_rgba8();
    if picture.pixels().all(|pixel| pixel.0[3] == u8::MAX) {
        return Ok(DynamicImage::from(picture).into_rgb8().into());
    }
    Ok(picture.into())
}

/// Whether a JPEG has its end. The decoder would fill what is missing with grey.
fn ends(jpeg: &[u8]) -> bool {
    let mut at = 2;
    // Step over the segments: a thumbnail inside one has an end of its own.
    while let Some([0xFF, marker, high, low]) = jpeg.get(at..at + 4) {
        if *marker == 0xFF {
            at += 1; // Padding before a marker.
            continue;
        }
        at += 2 + usize::from(u16::from_be_bytes([*high, *low]));
        if *marker == 0xDA {
            // In what follows the picture itself never has these two bytes side by side.
            return jpeg.get(at..).is_some_and(|rest| rest.windows(2).any(|pair| pair == [0xFF, 0xD9]));
        }
    }
    false
}

fn refused(error: ImageError) -> PictureError {
    match error {
        ImageError::Limits(_) => PictureError::TooLarge,
        ImageError::Unsupported(_) => {
            PictureError::Unreadable("it uses a form of its format we do not read".to_owned())
        }
        _ => PictureError::Unreadable("it is damaged or cut short".to_owned()),
    }
}

/// The size of a picture whose long side is `side`, at least one pixel each way.
fn fit(width: u32, height: u32, side: u32) -> (u32, u32) {
    let long = u64::from(width.max(height));
    let scaled = |length: u32| {
        let exact = (u64::from(length) * u64::from(side) + long / 2) / long;
        u32::try_from(exact.max(1)).unwrap_or(side)
    };
    (scaled(width), scaled(height))
}

/// Shrinks with a filter that keeps edges: Catmull-Rom, without Lanczos' halos. Not where something shines through,
/// because where it overshoots a colour would exceed its own alpha. (The resizer weighs colours by their alpha, so that
/// those of invisible pixels do not bleed into edges.)
fn shrink(picture: &DynamicImage, width: u32, height: u32) -> Option<DynamicImage> {
    // By the two types that there are: for a picture of any type the resizer's code for all of them would be built in.
    match picture {
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

/// The file of one size: JPEG, or PNG where something shines through.
fn encode(picture: &DynamicImage) -> Option<(&'static str, Vec<u8>)> {
    let mut data = Vec::new();
    if picture.color().has_alpha() {
        let encoder = PngEncoder::new_with_quality(&mut data, CompressionType::Default, PngFilter::Adaptive);
        picture.write_with_encoder(encoder).ok()?;
        return Some(("image/png", data));
    }
    let (width, height) = (u16::try_from(picture.width()).ok()?, u16::try_from(picture.height()).ok()?);
    JpegEncoder::new(&mut data, JPEG_QUALITY).encode(picture.as_bytes(), width, height, ColorType::Rgb).ok()?;
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

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut data = Cursor::new(Vec::new());
        picture.write_to(&mut data, format).unwrap();
        data.into_inner()
    }

    fn widths(renditions: &[Rendition]) -> Vec<(u32, u32)> {
        renditions.iter().map(|r| (r.width, r.height)).collect()
    }

    #[test]
    fn each_format_becomes_the_sizes_and_is_never_enlarged() {
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
            let picture = DynamicImage::ImageRgb8(two_halves(size.0, size.1));
            // One format is enough for the large ones: what is tested there are the sizes, and debug builds are slow.
            let small = size.0 * size.1 < 100_000;
            let formats = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP];
            for format in formats.into_iter().take(if small { 3 } else { 1 }) {
                let renditions = render(&encoded(&picture, format), BYTES, PIXELS).unwrap();
                if size.0 == 3 {
                    // Two of equal width would be one for whoever asks by width.
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
    fn what_shines_through_stays_clear_and_keeps_its_colour_at_the_edge() {
        // Opaque green beside pixels that are invisible and red: no red may bleed in.
        let picture = RgbaImage::from_fn(400, 400, |x, _| {
            if x % 2 == 0 { image::Rgba([0, 200, 0, 255]) } else { image::Rgba([255, 0, 0, 0]) }
        });
        let renditions = render(&encoded(&picture.into(), ImageFormat::Png), BYTES, PIXELS).unwrap();
        let small = renditions.first().unwrap();
        assert_eq!((small.width, small.content_type), (160, "image/png"));
        let again = image::load_from_memory(&small.data).unwrap().into_rgba8();
        let [red, green, _, alpha] = again.get_pixel(80, 80).0;
        assert!(red < 20 && green > 170 && (100..160).contains(&alpha), "{:?}", again.get_pixel(80, 80));
    }

    #[test]
    fn an_alpha_channel_that_hides_nothing_is_dropped() {
        let picture = RgbaImage::from_pixel(300, 300, image::Rgba([9, 9, 9, 255]));
        let renditions = render(&encoded(&picture.into(), ImageFormat::WebP), BYTES, PIXELS).unwrap();
        assert!(renditions.iter().all(|r| r.content_type == "image/jpeg"));
    }

    #[test]
    fn grey_and_sixteen_bits_are_read() {
        for picture in
            [DynamicImage::new_luma8(200, 100), DynamicImage::new_rgb16(200, 100), DynamicImage::new_luma_a16(200, 100)]
        {
            let renditions = render(&encoded(&picture, ImageFormat::Png), BYTES, PIXELS).unwrap();
            assert_eq!(widths(&renditions), [(160, 80), (200, 100)]);
        }
    }

    /// A PNG of a few bytes whose header promises 50,000 by 50,000 pixels.
    fn bomb() -> Vec<u8> {
        let mut data = encoded(&DynamicImage::new_rgb8(1, 1), ImageFormat::Png);
        data[16..20].copy_from_slice(&50_000_u32.to_be_bytes());
        data[20..24].copy_from_slice(&50_000_u32.to_be_bytes());
        let crc = crc(&data[12..29]);
        data[29..33].copy_from_slice(&crc.to_be_bytes());
        data
    }

    /// CRC-32 as PNG has it (ISO 3309).
    fn crc(data: &[u8]) -> u32 {
        !data
            .iter()
            .fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xEDB8_8320 * (c & 1))))
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let bomb = bomb();
        assert!(bomb.len() < 200);
        // Its pixels are missing: a decoder that had begun would say that it cannot be read.
        assert_eq!(render(&bomb, BYTES, PIXELS), Err(PictureError::TooLarge));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let picture = encoded(&DynamicImage::new_rgb8(200, 200), ImageFormat::Jpeg);
        assert_eq!(render(&picture, picture.len() - 1, PIXELS), Err(PictureError::TooLarge));
        assert_eq!(render(&picture, BYTES, 200 * 200 - 1), Err(PictureError::TooLarge));
        assert!(render(&picture, picture.len(), 200 * 200).is_ok());
    }

    #[test]
    fn what_is_no_picture_of_ours_is_refused() {
        let gif =
            b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
        let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
        for data in [&gif[..], &svg[..], b"hello", b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8 "]
        {
            assert!(matches!(render(data, BYTES, PIXELS), Err(PictureError::Unreadable(_))), "{data:?}");
        }
    }

    #[test]
    fn a_file_cut_short_anywhere_is_refused() {
        let picture = DynamicImage::ImageRgb8(two_halves(120, 80));
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Jpeg] {
            let data = encoded(&picture, format);
            for length in (0..data.len()).step_by(data.len() / 20).chain([data.len() - 1]) {
                let short = render(&data[..length], BYTES, PIXELS);
                // Of a PNG and a WebP the last bytes are a checksum or padding that nobody needs.
                let whole = length == data.len() - 1 && format != ImageFormat::Jpeg;
                assert!(whole || matches!(short, Err(PictureError::Unreadable(_))), "{format:?} {length}");
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
    fn a_picture_taken_sideways_is_shown_upright_and_tells_nothing_else() {
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

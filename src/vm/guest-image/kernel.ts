import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { unpackLegacyLz4 } from './lz4.ts';

// Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
const SETUP_SECTORS = 0x1f1;
const HEADER_MAGIC = 0x202;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SECTOR = 512;
const ELF = Buffer.from('\x7fELF', 'latin1');

/**
 * The kernel itself out of an x86 boot image: a hypervisor can start it at once (the PVH entry), where the boot
 * image would first unpack itself inside the guest. Undefined when it is packed in a way that is not known here,
 * or is no x86 boot image: that can be booted as it is.
 */
export function unpackKernel(image: Buffer): Buffer | undefined {
  if (
    image.length < PAYLOAD_LENGTH + 4 ||
    image.toString('latin1', HEADER_MAGIC, HEADER_MAGIC + 4) !== 'HdrS'
  ) {
    return undefined;
  }
  const start = ((image[SETUP_SECTORS] || 4) + 1) * SECTOR + image.readUInt32LE(PAYLOAD_OFFSET);
  const payload = image.subarray(start, start + image.readUInt32LE(PAYLOAD_LENGTH));
  try {
    const kernel = unpack(payload);
    return kernel?.subarray(0, 4).equals(ELF) ? kernel : undefined;
  } catch {
    return undefined;
  }
}

function unpack(payload: Buffer): Buffer | undefined {
  switch (payload.toString('hex', 0, 4)) {
    case '02214c18':
      return unpackLegacyLz4(payload);
    case '28b52ffd':
      return zstdDecompressSync(withoutSize(payload));
    default:
      return payload.toString('hex', 0, 2) === '1f8b' ? gunzipSync(withoutSize(payload)) : undefined;
  }
}

/** The kernel's build appends the unpacked size. */
function withoutSize(payload: Buffer): Buffer {
  return payload.subarray(0, -4);
}

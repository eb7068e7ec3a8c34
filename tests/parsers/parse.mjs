// Judges JSON texts: one in base64 a line, '1' or '0' a line.
import { readFileSync } from 'node:fs';

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function isWell(value) {
  if (typeof value === 'string') return value.isWellFormed();
  if (typeof value === 'number') return Number.isFinite(value);
  if (value === null || typeof value !== 'object') return true;
  return Object.entries(value).every(([name, member]) => name.isWellFormed() && isWell(member));
}

function judge(line) {
  try {
    return isWell(JSON.parse(decoder.decode(Buffer.from(line, 'base64')))) ? '1' : '0';
  } catch {
    return '0';
  }
}

const lines = readFileSync(0, 'latin1').split('\n').slice(0, -1);
process.stdout.write(lines.map((line) => judge(line) + '\n').join(''));

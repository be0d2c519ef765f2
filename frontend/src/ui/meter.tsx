/** A share between 0 and 1 as a bar; the number itself is always written beside it. */
export function Meter({ share }: { share: number }) {
  const width = Math.max(0, Math.min(1, share)) * 100;
  return (
    <svg className="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
      <rect className="meter-track" width="100" height="4" />
      <rect className="meter-fill" width={width} height="4" />
    </svg>
  );
}
